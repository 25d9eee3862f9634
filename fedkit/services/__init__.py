"""What testbeds of one experiment share: accounts, files, tools. Each service is a plug-in of one file."""
