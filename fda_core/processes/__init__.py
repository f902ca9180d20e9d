"""What the service's processes share beside plain data: settings, logs, traces and figures.

Only their entry points use it; the engine stays a library that reads no environment variable.
"""
