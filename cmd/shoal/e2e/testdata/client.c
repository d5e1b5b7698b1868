/* Drives Debian's Paho C by lines: see library_process_test.go for the protocol.
 * The first argument is 5 or 3.1.1. One thread reads verbs, the library's calls
 * back. */
#include <MQTTClient.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { patience_ms = 60000, line_bytes = 1 << 16 };

static int v5;
static MQTTClient client;
static char scheme[8] = "mqtt", ca[1024], url[256];
static MQTTClient_willOptions testament = MQTTClient_willOptions_initializer;
static int has_testament;
static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;

#define say(...) \
	(pthread_mutex_lock(&output), printf(__VA_ARGS__), putchar('\n'), fflush(stdout), pthread_mutex_unlock(&output))

static int arrived(void *context, char *topic, int length, MQTTClient_message *m)
{
	(void)context, (void)length;
	say("message\t%s\t%d\t%d\t%.*s", topic, m->qos, m->retained, m->payloadlen, (char *)m->payload);
	MQTTClient_freeMessage(&m);
	MQTTClient_free(topic);
	return 1;
}

static void lost(void *context, char *cause)
{
	(void)context, (void)cause;
	say("lost");
}

static void failed(int code) { say("error\t%d %s", code, MQTTClient_strerror(code) ? MQTTClient_strerror(code) : ""); }

static void do_connect(char **w)
{
	/* The library's names of what everybody calls mqtt and mqtts. */
	const char *s = !strcmp(scheme, "mqtt") ? "tcp" : !strcmp(scheme, "mqtts") ? "ssl" : scheme;
	snprintf(url, sizeof url, "%s://%s:%s%s", s, w[0], w[1], s[0] == 'w' ? "/mqtt" : "");
	MQTTClient_createOptions create = MQTTClient_createOptions_initializer;
	create.MQTTVersion = v5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
	int rc = MQTTClient_createWithOptions(&client, url, w[2], MQTTCLIENT_PERSISTENCE_NONE, NULL, &create);
	if (rc != MQTTCLIENT_SUCCESS)
		return failed(rc);
	MQTTClient_setCallbacks(client, NULL, lost, arrived, NULL);
	MQTTClient_connectOptions o3 = MQTTClient_connectOptions_initializer;
	MQTTClient_connectOptions o5 = MQTTClient_connectOptions_initializer5;
	MQTTClient_connectOptions o = v5 ? o5 : o3;
	MQTTClient_SSLOptions tls = MQTTClient_SSLOptions_initializer;
	tls.trustStore = ca;
	tls.verify = 1;
	int clean = w[3][0] == '1';
	o.MQTTVersion = create.MQTTVersion;
	o.keepAliveInterval = 30;
	o.cleansession = v5 ? 0 : clean;
	o.cleanstart = v5 ? clean : 0;
	o.ssl = ca[0] ? &tls : NULL;
	o.will = has_testament ? &testament : NULL;
	if (v5) {
		MQTTProperties properties = MQTTProperties_initializer;
		MQTTProperty expiry = {MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, {.integer4 = clean ? 0 : 3600}};
		MQTTProperties_add(&properties, &expiry);
		MQTTResponse r = MQTTClient_connect5(client, &o, &properties, NULL);
		rc = r.reasonCode;
		MQTTResponse_free(r);
		MQTTProperties_free(&properties);
	} else {
		rc = MQTTClient_connect(client, &o);
	}
	if (rc != MQTTCLIENT_SUCCESS)
		return failed(rc);
	say("connected\t%d", o.returned.sessionPresent);
}

static void do_subscribe(char **w)
{
	int granted = atoi(w[1]), rc;
	if (v5) {
		MQTTResponse r = MQTTClient_subscribe5(client, w[0], granted, NULL, NULL);
		rc = granted = r.reasonCode;
		MQTTResponse_free(r);
	} else if ((rc = MQTTClient_subscribe(client, w[0], granted)) == MQTTCLIENT_SUCCESS) {
		rc = granted; /* the library keeps what the SUBACK says, unless it is another */
	}
	if (rc < 0 || rc > 2)
		return failed(rc);
	say("subscribed\t%d", granted);
}

static void do_publish(char **w)
{
	MQTTClient_deliveryToken token = 0;
	int length = (int)strlen(w[3]), qos = atoi(w[1]), retain = atoi(w[2]), rc;
	if (v5) {
		MQTTResponse r = MQTTClient_publish5(client, w[0], length, w[3], qos, retain, NULL, &token);
		rc = r.reasonCode;
		MQTTResponse_free(r);
	} else {
		rc = MQTTClient_publish(client, w[0], length, w[3], qos, retain, &token);
	}
	if (rc == MQTTCLIENT_SUCCESS && qos > 0)
		rc = MQTTClient_waitForCompletion(client, token, patience_ms);
	if (rc != MQTTCLIENT_SUCCESS)
		return failed(rc);
	say("published");
}

static void do_disconnect(void)
{
	int rc = v5 ? MQTTClient_disconnect5(client, patience_ms, MQTTREASONCODE_SUCCESS, NULL)
		    : MQTTClient_disconnect(client, patience_ms);
	if (rc != MQTTCLIENT_SUCCESS)
		return failed(rc);
	say("disconnected");
}

static void do_will(char **w)
{
	testament.topicName = strdup(w[0]);
	testament.qos = atoi(w[1]);
	testament.retained = atoi(w[2]);
	testament.message = strdup(w[3]);
	has_testament = 1;
	say("ready");
}

static void do_through(char **w)
{
	snprintf(scheme, sizeof scheme, "%s", w[0]);
	if (!strcmp(scheme, "mqtts") || !strcmp(scheme, "wss"))
		snprintf(ca, sizeof ca, "%s", w[1]);
	say("ready");
}

int main(int argc, char **argv)
{
	static char line[line_bytes];
	v5 = argc > 1 && !strcmp(argv[1], "5");
	MQTTClient_init_options init = MQTTClient_init_options_initializer;
	init.do_openssl_init = 1;
	MQTTClient_global_init(&init);
	while (fgets(line, sizeof line, stdin)) {
		char *words[5] = {"", "", "", "", ""}, *rest = line;
		line[strcspn(line, "\n")] = 0;
		for (int i = 0; i < 5 && rest; i++)
			words[i] = strsep(&rest, "\t");
		if (!strcmp(words[0], "connect"))
			do_connect(words + 1);
		else if (!strcmp(words[0], "subscribe"))
			do_subscribe(words + 1);
		else if (!strcmp(words[0], "publish"))
			do_publish(words + 1);
		else if (!strcmp(words[0], "disconnect"))
			do_disconnect();
		else if (!strcmp(words[0], "will"))
			do_will(words + 1);
		else if (!strcmp(words[0], "through"))
			do_through(words + 1);
		else
			say("error\tno verb %s", words[0]);
	}
	return 0;
}
