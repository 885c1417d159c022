"""ComfyUI's replies and messages, typed and decoded leniently: unknown fields and message types never fail.

A real server emits bare `NaN`, custom nodes add message types, and versions rename fields. What we need is declared
here, by the route that it comes from; everything else is skipped unread. Decoders raise `msgspec.MsgspecError` and
nothing else, whatever the bytes are, and their results can be encoded again: no number is wider than 64 bits, nothing
is nested deeply.
"""
