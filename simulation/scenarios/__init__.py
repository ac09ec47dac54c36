"""What befalls virtual labs: the table ``[simulation]``, and how it is carried out."""
