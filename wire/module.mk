$(eval $(call library,wire,-Wsign-conversion))
