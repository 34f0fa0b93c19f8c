$(eval $(call library,base,-Wsign-conversion))
