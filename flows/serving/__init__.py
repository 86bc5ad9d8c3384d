"""What listens on loopback: Prefect's and MLflow's servers, their ports and logs, and the deployments.

May import `engine`. A new server goes to `servers`, what starts several of them to `services`.
"""
