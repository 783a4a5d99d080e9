"""What fills the slots of a method: posterior transforms, penalties, schedules, refinement, plans."""
