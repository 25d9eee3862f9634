"""Who used how much: at the lender what it lent, at the borrower what its users had, both to the same microsecond."""
