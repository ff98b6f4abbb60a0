"""What the agent can do."""

from langchain_core.tools import tool

from my_agent.utils.state import Order

ORDERS = {7: Order(7, "shipped"), 8: Order(8, "waiting for stock")}


@tool
def look_up(number: int) -> str:
    """Tell the status of an order."""
    order = ORDERS.get(number)
    return order.status if order else "unknown"
