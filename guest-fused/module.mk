$(eval $(call library,guest-fused,$(shell pkg-config --cflags fuse3)))
$(eval $(call guest_program,guest-fused,guest-fused,wire base,-lfuse3 -ldl))
