"""What stands in /etc/fed of every lent machine, be it a container or a virtual machine, so that a user finds the same in each."""
