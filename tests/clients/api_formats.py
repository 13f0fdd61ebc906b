"""Values of the formats that only the document of the server API has."""

import schemathesis
from hypothesis import strategies

FILTERS = [
    "plan",
    "!trial",
    "plan == 'pro' && region in ['eu', 'us']",
    "(level >= 7 || beta == true) && !(plan != \"free\")",
    "region not in ['asia'] && level < 1e3",
]

schemathesis.openapi.format("filter", strategies.sampled_from(FILTERS))
