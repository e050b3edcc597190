"""What measures: the clock, time spans, traces, telemetry, and the limits of the machine."""
