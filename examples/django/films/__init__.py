"""Films, in Django: a form that uploads one, a list, and a bar that shows how far each one is."""
