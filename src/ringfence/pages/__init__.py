"""What pages of HTML have in common: the environment of their templates, charts, and a style sheet."""
