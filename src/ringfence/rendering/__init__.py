"""Conversation → tokens, with the ring of every token, for any chat template.

`conversations` renders by one of the `plans`, `placement` makes `layouts` in which stands elsewhere
what a template refuses or drops, with `tool_text` for templates without tools, `tracing` follows
text through a template by `marks`, `traits` finds out what a template can do, `thoughts` parts what
a reply thinks from what it says, `templates` runs one in a sandbox within the costs of `prices`.
"""

from ringfence.rendering.conversations import SCAFFOLD as SCAFFOLD
from ringfence.rendering.conversations import Rendering as Rendering
from ringfence.rendering.conversations import Reply as Reply
from ringfence.rendering.conversations import Span as Span
from ringfence.rendering.conversations import answer as answer
from ringfence.rendering.conversations import assistant_mask as assistant_mask
from ringfence.rendering.conversations import render as render
from ringfence.rendering.conversations import render_text as render_text
from ringfence.rendering.conversations import transcript as transcript
