$(eval $(call library,vmm))
$(eval $(call static_program,matchlock-vmm,vmm,jail wire base,-lseccomp -luring -llz4))
