"""Small trained models, each with the script that trained it and the data to judge it by."""
