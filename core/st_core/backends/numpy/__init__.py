"""Run stacks of static modules with numpy alone."""
