$(eval $(call library,jail))
