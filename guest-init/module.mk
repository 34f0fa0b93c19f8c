$(eval $(call library,guest-init))
# One file with guest-fused (guest-init/main.c says why).
$(eval $(call guest_program,guest-init,guest-init,guest-fused wire base))
