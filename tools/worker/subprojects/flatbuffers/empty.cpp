extern const int mafalda_empty_flatbuffers;
