"""Federation kits: what joins the pieces of an experiment and makes its nodes one. Each is a plug-in of one class."""
