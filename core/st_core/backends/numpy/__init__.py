"""Run stacks with numpy alone: one function per module, from features to features."""
