$(eval $(call library,audit))
$(eval $(call program,matchlock-audit,audit,jail wire base,-lseccomp -ljansson -lcrypto))
