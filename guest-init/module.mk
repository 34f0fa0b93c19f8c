$(eval $(call library,guest-init))
$(eval $(call guest_program,guest-init,guest-init,wire base))
