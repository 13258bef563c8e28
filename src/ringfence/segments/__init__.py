"""Ring signals: a learned embedding per ring, which tells a model who wrote each token.

`ringed_tokens` carries the ring of every token to an engine, `signal` adds the embeddings to a
model (torch; imported where it is used), `saved` knows its files. Knows
nothing of templates, engines or trainers.
"""

from ringfence.segments.ringed_tokens import NO_RING as NO_RING
from ringfence.segments.ringed_tokens import RingedTokens as RingedTokens
