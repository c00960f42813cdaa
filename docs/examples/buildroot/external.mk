include $(sort $(wildcard $(BR2_EXTERNAL_CELLOS_TELEMETRY_PATH)/package/*/*.mk))
