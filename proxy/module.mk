PROXY_PACKAGES := openssl libnghttp2 libcares ldns jansson zlib
$(eval $(call library,proxy,$(shell $(PKG_CONFIG) --cflags $(PROXY_PACKAGES) 2>/dev/null)))
$(eval $(call program,matchlock-proxy,proxy,jail wire base,$(shell $(PKG_CONFIG) --libs $(PROXY_PACKAGES) 2>/dev/null) -lseccomp))
