"""OpenAI shapes: read a request, write a reply, write an error."""
