"""One engine's specification and states, and the rules for who runs, who waits and who yields."""
