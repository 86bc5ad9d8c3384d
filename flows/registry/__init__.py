"""From a selected model to champion in MLflow's registry: the gate, and registration.

May import `engine`. A new condition for champions goes to `gate`.
"""
