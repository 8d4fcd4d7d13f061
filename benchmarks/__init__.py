"""Speed and memory: scripts for people, one question each. Start with README.md."""
