$(eval $(call library,cli))
$(eval $(call program,matchlock,cli,jail wire base,-lseccomp -ljansson -lcyaml -lyaml -lcrypto -lsqlite3))
