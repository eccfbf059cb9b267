extern const int mafalda_empty_abseil_cpp;
