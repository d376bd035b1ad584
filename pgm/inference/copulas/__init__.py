"""What copulas are made of: marginal laws of columns, and the dependence between their scores."""
