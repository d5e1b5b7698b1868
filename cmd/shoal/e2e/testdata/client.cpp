// Drives Debian's Paho C++ by lines: see library_process_test.go for the protocol.
// The first argument is 5 or 3.1.1.
#include <mqtt/async_client.h>

#include <iostream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

std::mutex output;

template <typename... Words>
void say(const Words &...words)
{
	std::lock_guard<std::mutex> lock(output);
	const char *between = "";
	((std::cout << between << words, between = "\t"), ...);
	std::cout << std::endl;
}

class Driver : public mqtt::callback {
	bool v5;
	std::string scheme = "mqtt", ca;
	mqtt::will_options testament;
	bool hasTestament = false;
	std::unique_ptr<mqtt::async_client> client;

	void message_arrived(mqtt::const_message_ptr m) override
	{
		say("message", m->get_topic(), m->get_qos(), int(m->is_retained()), m->to_string());
	}
	void connection_lost(const std::string &) override { say("lost"); }

	void connect(const std::vector<std::string> &w)
	{
		// The library's names of what everybody calls mqtt and mqtts.
		std::string s = scheme == "mqtt" ? "tcp" : scheme == "mqtts" ? "ssl" : scheme;
		std::string url = s + "://" + w[1] + ":" + w[2] + (s[0] == 'w' ? "/mqtt" : "");
		bool clean = w[4] == "1";
		mqtt::create_options create(v5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1);
		client = std::make_unique<mqtt::async_client>(url, w[3], create, nullptr);
		client->set_callback(*this);
		mqtt::connect_options o;
		o.set_mqtt_version(v5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1);
		o.set_keep_alive_interval(30);
		if (v5) {
			o.set_clean_start(clean);
			o.set_properties({{mqtt::property::SESSION_EXPIRY_INTERVAL, clean ? 0 : 3600}});
		} else {
			o.set_clean_session(clean);
		}
		if (!ca.empty()) {
			mqtt::ssl_options tls;
			tls.set_trust_store(ca);
			tls.set_verify(true);
			o.set_ssl(tls);
		}
		if (hasTestament)
			o.set_will(testament);
		auto token = client->connect(o);
		token->wait();
		say("connected", int(token->get_connect_response().is_session_present()));
	}

	void subscribe(const std::vector<std::string> &w)
	{
		auto token = client->subscribe(w[1], std::stoi(w[2]));
		token->wait();
		say("subscribed", int(token->get_subscribe_response().get_reason_codes().at(0)));
	}

	void verb(const std::vector<std::string> &w)
	{
		if (w[0] == "connect") {
			connect(w);
		} else if (w[0] == "subscribe") {
			subscribe(w);
		} else if (w[0] == "publish") {
			client->publish(w[1], w[4].data(), w[4].size(), std::stoi(w[2]), w[3] == "1")->wait();
			say("published");
		} else if (w[0] == "disconnect") {
			client->disconnect()->wait();
			say("disconnected");
		} else if (w[0] == "will") {
			testament = mqtt::will_options(w[1], w[4].data(), w[4].size(), std::stoi(w[2]), w[3] == "1");
			hasTestament = true;
			say("ready");
		} else if (w[0] == "through") {
			scheme = w[1];
			if (scheme == "mqtts" || scheme == "wss")
				ca = w[2];
			say("ready");
		} else {
			say("error", "no verb " + w[0]);
		}
	}

public:
	explicit Driver(bool v5) : v5(v5) {}

	void run()
	{
		for (std::string line; std::getline(std::cin, line);) {
			std::vector<std::string> words;
			for (size_t from = 0, to; from != std::string::npos; from = to == std::string::npos ? to : to + 1) {
				to = line.find('\t', from);
				words.push_back(line.substr(from, to == std::string::npos ? to : to - from));
			}
			words.resize(5);
			try {
				verb(words);
			} catch (const std::exception &e) {
				say("error", std::string(e.what()));
			}
		}
	}
};

} // namespace

int main(int argc, char **argv)
{
	Driver driver(argc > 1 && std::string(argv[1]) == "5");
	driver.run();
	std::_Exit(0); // whatever the library's threads still do
}
