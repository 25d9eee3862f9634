"""What a site lends from: one small file for each kind of cloud or testbed, behind one contract (DESIGN §6)."""
