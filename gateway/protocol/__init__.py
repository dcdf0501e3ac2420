"""Pure values and codecs: bytes in, facts out; no module here waits, logs or opens anything."""
