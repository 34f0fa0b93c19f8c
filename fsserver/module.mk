$(eval $(call library,fsserver))
$(eval $(call program,matchlock-fsserver,fsserver,jail wire base,-lseccomp -luring -ljansson -lcyaml -lyaml -lcrypto -lz))
