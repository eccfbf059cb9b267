extern const int mafalda_empty_libsrtp3;
