$(eval $(call library,vmm))
$(eval $(call program,matchlock-vmm,vmm,jail wire base,-lseccomp -luring -llz4))
