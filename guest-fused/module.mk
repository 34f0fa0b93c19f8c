$(eval $(call library,guest-fused))
$(eval $(call guest_program,guest-fused,guest-fused,wire base))
