"""Table 1 as code: what fills the slots of a method, and the one objective."""
