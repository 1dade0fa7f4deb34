"""AWS Lambda: functions from zips, run in warm worker processes of this machine's Python."""
