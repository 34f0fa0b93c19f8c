$(eval $(call library,vmm))
$(eval $(call static_program,matchlock-vmm,vmm,jail wire base,-lseccomp -luring -llz4))

# The filters (vmm/filters.h) are part of the program alone: what compiles them needs the library.
$(BUILD)/matchlock-vmm: $(BUILD)/vmm/filters.o
$(BUILD)/vmm/filters.o: $(BUILD)/vmm/filters.c
	@echo "  CC      $@"
	@$(CC) $(CFLAGS) $(HOST_CFLAGS) -c -o $@ $<
$(BUILD)/vmm/filters.c: $(BUILD)/vmm/compile-filters
	@echo "  FILTERS $@"
	@$< >$@
$(BUILD)/vmm/compile-filters: $(BUILD)/vmm/compile_filters/main.o $(patsubst %,$(BUILD)/%.a,vmm jail wire base)
	@echo "  LINK    $@"
	@$(CC) $(LDFLAGS) $(HOST_LDFLAGS) -o $@ $^ -lseccomp -luring -llz4
