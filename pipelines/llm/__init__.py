"""Language models with forced lengths (``generate``): joules per request and per token."""
