"""The trade-off study: does energy add anything to accuracy, cost and latency, and what?"""
