"""The decisions, without input or output: values in, values out; clock and chance are arguments."""
